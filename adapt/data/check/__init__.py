"""What a source of data is, on one page, before anything is made of it: `adapt.data check`.

The figures are those of stage `data` itself, found without leaving anything behind (`examined`);
`figures` is the page as values, `sections` in words, `page` in HTML with some rows drawn.
"""
