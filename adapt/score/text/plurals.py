"""English plurals as `pattern.en.singularize`, which CHAIR's `maxlinn` code uses, undoes them.

The rules are those of clips/pattern (github.com/clips/pattern, pattern/text/en/inflect.py), written
anew and without those for learned words. They are blunt, and official figures depend on it: every
final s goes ("bus" becomes "bu" and "tennis" "tenni"), what ends in -men ends in -man, "people" are
a "person", "slice" is "slouse", and some plurals in -ies stay as they are.
"""

# Ending>singular, the first that fits: irregular words and their compounds, then what is regular.
_RULES = """
    axes>axe beeves>beef brethren>brother children>child corpuses>corpus feet>foot geese>goose
    helves>helve kine>cow leaves>leaf loaves>loaf men>man mongooses>mongoose monies>money
    moves>move opera>opus opuses>opus our>my oxen>ox people>person sexes>sex teeth>tooth ae>a
    itis>itis eaux>eau quizzes>quiz matrices>matrix apices>apex vertices>vertex indices>index
    aliases>alias statuses>status ci>cus ii>ius oi>ous pi>pus ri>rus ti>tus vi>vus crises>crisis
    testes>testis shoes>shoe oes>o buses>bus mice>mouse lice>louse xes>x ches>ch sses>ss shes>sh
    movies>movie zombies>zombie series>series quies>quy aies>aie eies>eie iies>iie oies>oie
    uies>uie yies>yie ies>y alves>alf elves>elf olves>olf deaves>deave eaves>eaf arves>arf
    erves>erve nives>nife lives>life wives>wife lves>lf rves>rf aves>ave eves>eve oves>ove
    sives>sive tives>tive hives>hive fves>fve ves>fe analyses>analysis bases>basis
    diagnoses>diagnosis prognoses>prognosis synopses>synopsis theses>thesis opses>opsis
    yses>ysis hoses>hose doses>dose roses>rose ooses>oose noses>nose boses>bose closes>close
    poses>pose oses>osis ia>ium ta>tum news>news s>
"""
# Words that stay and, by an accident of the original, all that they end with: "is" (debris).
_UNCHANGED = """
    bison bread breeches britches butter chassis cheese christmas clippers contretemps corps
    debris diabetes equipment fruit furniture gallows graffiti happiness headquarters herpes
    homework innings jackanapes ketchup luggage mathematics mayonnaise measles mews mumps
    mustard news pincers pliers proceedings progress rabies rice salmon scissors series shears
    species swine swiss trout tuna water wildebeest
"""
_STAYING_IN_IE = """
    auntie beanie birdie bogie bombie collie cookie cutie doggie eyrie freebie goonie groupie
    hankie hippie hoagie hottie indie junkie laddie laramie lingerie meanie newbie nightie oldie
    pixie quickie reverie rookie softie sortie stoolie sweetie techie toughie valkyrie veggie
    weenie yuppie zombie
"""
_PAIRS = [tuple(rule.split(">")) for rule in _RULES.split()]
_ENDS = frozenset(word[start:] for word in _UNCHANGED.split() for start in range(len(word)))
_IES = tuple(f"{word}s" for word in _STAYING_IN_IE.split())


def singular(word: str) -> str:
    """The singular of a lower-case word.

    >>> words = ("dogs", "knives", "sandwiches", "women", "people", "scissors", "collies", "bus")
    >>> [singular(word) for word in words]
    ['dog', 'knife', 'sandwich', 'woman', 'person', 'scissors', 'collies', 'bu']
    """
    if word in _ENDS or word.endswith(_IES):
        return word
    return next((word[: -len(old)] + new for old, new in _PAIRS if word.endswith(old)), word)
