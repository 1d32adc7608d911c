"""Texts and names that somebody plants, by what they try."""

ESCAPES = [
    *("\x1b[2J\x1b[H", "\x1b]0;owned\x07", "\x1b[1A\x1b[2K", "\x9b2J", "\x9d0;x\x9c", "\x1bc"),
    *("a\rb", "a\x08\x08b", "a\nINFO promoted", "a\r\nb", "a\u2028b", "a\u2029b", "a\x85b", "\x00"),
    *("\u202egnp.exe", "\u2066x\u2069", "\u200b", "\ufeff", "\x7f", "\ue000", "\U000e0041", "\x0b"),
    *("\x1b[31m", "\x1bP1$r\x1b\\", "\x1b[?1049h", "\t\t\t", "\x0c", "a\x1b", "\u061c", "\u180e"),
]
PLACES = [
    *("../../../x", "../x", "/abs/x", "//x", "..", ".", "a/../../x", "./x", "a//b", "x/", "~/x"),
    *("..\\..\\x", "C:\\x", "\\\\host\\x", "file:///etc/passwd", "-rf", "--help", ".bashrc"),
    *("%2e%2e/x", "$HOME/x", "`id`", "$(id)", "; rm -rf .", "a|b", "a&b", "*", "?", "a'b", 'a"b'),
    *("con", "nul", "a" * 300, "é" * 200, "x" * 5000, " ", "  a  ", "#", "a:b", "<b>", "{0}", "%s"),
]
FORMULAS = [
    *(
        r"$\foo$",
        r"$\frac{1}$",
        "$",
        "$$",
        "$$$",
        r"a $ b $ c",
        r"\$\foo$",
        r"$x^{$",
        r"\\$\foo\\$",
    ),
    *(r"$\mathrm{$", "costs $5 and $6", r"$\left($", "${", r"$\unknown{x}$", "\\", r"\textbf{x}"),
]
EVERY = [*ESCAPES, *PLACES, *FORMULAS]
