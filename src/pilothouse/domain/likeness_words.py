"""
Words that say what must not differ between two questions (`domain.likeness`): tables, and nothing else.

Each line of a table is a meaning and the forms of the words for it.
"""


def _forms(table: str) -> dict[str, str]:
    """Meaning by form, of lines `meaning: form form ...`."""
    found: dict[str, str] = {}
    for line in table.strip().splitlines():
        meaning, _, forms = line.strip().partition(": ")
        found.update(dict.fromkeys(forms.split(), meaning))
    return found


def _pairs(table: str) -> dict[str, tuple[int, int]]:
    """Pair and side by form; a line that begins with `|` is the other side of the one before."""
    found: dict[str, tuple[int, int]] = {}
    number = 0
    for line in table.strip().splitlines():
        side = int(line.strip().startswith("|"))
        number += 1 - side
        found.update(dict.fromkeys(line.strip(" |").split(), (number, side)))
    return found


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


NUMBERS = _forms(
    """
    0: zero
    2: two
    3: three
    4: four
    5: five
    6: six
    7: seven
    8: eight
    9: nine
    10: ten
    11: eleven
    12: twelve dozen
    13: thirteen
    14: fourteen
    15: fifteen
    16: sixteen
    17: seventeen
    18: eighteen
    19: nineteen
    20: twenty
    30: thirty
    40: forty
    50: fifty
    60: sixty
    70: seventy
    80: eighty
    90: ninety
    100: hundred
    1000: thousand
    1000000: million
    1000000000: billion
    1/2: half
    1/4: quarter
    2x: double twice
    3x: triple
    1.: first
    3.: third
    4.: fourth
    5.: fifth
    """
)
"""Left out: "one" and "second" say something else more often."""

UNITS = _forms(
    """
    km: km kilometer kilometers kilometre kilometres
    m: m meter meters metre metres
    cm: cm centimeter centimeters centimetre centimetres
    mm: mm millimeter millimeters millimetre millimetres
    mile: mile miles mi
    ft: ft foot feet
    inch: inch inches
    yard: yard yards
    kg: kg kilo kilos kilogram kilograms
    g: g gram grams
    mg: mg milligram milligrams
    ug: mcg microgram micrograms
    lb: lb lbs pound pounds
    oz: oz ounce ounces
    ton: ton tons tonne tonnes
    l: l liter liters litre litres
    ml: ml milliliter milliliters millilitre millilitres
    cup: cup cups
    spoon: tablespoon tablespoons tbsp
    teaspoon: teaspoon teaspoons tsp
    gallon: gallon gallons
    C: celsius centigrade
    F: fahrenheit
    K: kelvin
    s: second seconds sec secs
    min: minute minutes min mins
    h: hour hours hr hrs hourly
    day: day days daily
    week: week weeks weekly
    month: month months monthly
    year: year years yearly annual annually
    %: % percent percentage
    $: $ dollar dollars usd
    eur: € euro euros eur
    gbp: £ sterling gbp quid
    jpy: ¥ yen jpy
    kb: kb kilobyte kilobytes
    mb: mb megabyte megabytes
    gb: gb gigabyte gigabytes
    tb: tb terabyte terabytes
    mbit: mbps mbit mbits
    kw: kw kilowatt kilowatts
    w: watt watts
    v: volt volts
    kmh: kmh kph
    mph: mph
    deg: ° degree degrees
    """
)

NEGATIONS = _words(
    """
    not no never none nobody nothing neither nor nowhere cannot without except excluding unless
    nicht kein keine keinen nie niemals ohne pas jamais sans aucun aucune nunca sin ningun stop
    avoid prevent refuse lack lacking isnt dont cant wont doesnt didnt
    """
)

OPPOSITES = _pairs(
    """
    increase increases increasing increased raise raising raised grow grows rise rises rising
    | decrease decreases decreasing decreased reduce reduces reducing reduced lowering shrink fall
    enable enables enabled enabling activate activated
    | disable disables disabled disabling deactivate
    before earlier prior
    | after later
    more most maximum max largest biggest highest greatest longest best larger bigger higher greater
    | less least minimum min smallest lowest shortest worst smaller fewer
    open opens opened opening
    | close closes closed closing
    start starts starting started begin begins beginning
    | end ends ending ended finish quit
    import importing imports imported
    | export exporting exports exported
    buy buying purchase bought
    | sell selling sold
    left
    | right
    win winning won
    | lose losing lost
    last latest newest recent
    | oldest earliest
    add adding append insert
    | remove removing delete deleting drop
    install installs installing installed
    | uninstall uninstalls uninstalling uninstalled
    allow allowed allowing permit permitted legal safe possible
    | deny denied forbid forbidden illegal unsafe dangerous impossible
    hot hotter warm
    | cold colder cool
    fast faster quick quickly
    | slow slower slowly
    north northern
    | south southern
    east eastern
    | west western
    advantages advantage pros benefits benefit
    | disadvantages disadvantage cons drawbacks drawback
    encrypt encrypting encode
    | decrypt decrypting decode
    up upgrade
    | down downgrade
    inside within indoor
    | outside outdoor
    upload uploads uploading uploaded
    | download downloads downloading downloaded
    block blocks blocking blocked
    | unblock unblocks unblocking unblocked
    public
    | private
    true
    | false
    mother woman female wife girl
    | father man husband boy
    male men
    | women
    lock locked
    | unlock unlocked
    accept accepted
    | reject rejected decline
    ascending
    | descending
    gain
    | loss
    today
    | yesterday
    input inputs
    | output outputs
    sender send sending
    | receiver receive receiving
    arrive arrival
    | depart departure leave
    vegetarian vegan
    | meat
    child children kids infant baby
    | adult adults
    dog dogs
    | cat cats
    summer
    | winter
    morning
    | evening night
    """
)

NO_NAMES = _words(
    """
    a an the this that these those my your our their his her its i we you he she it they there here
    what which who whom whose when where why how is are was were am be can could will would shall
    should may might must do does did has have had if in on at by for from to of with and or but so
    as not no yes please tell give show explain describe list write name find make create help say
    define compare summarize summarise translate convert calculate compute suggest recommend
    provide generate draft let lets need want looking any some all every each many much more most
    get set use using turn add remove delete open close start stop change update check install
    configure fix build run send buy sell cook bake play learn read count sort rank think imagine
    suppose given after before during since until while because although according once then also
    just only even still thanks thank hello hi hey ok okay dear regarding about briefly quickly
    kindly outline discuss review identify determine state mention spell pronounce solve s t d ll
    re ve m
    """
)
"""Begin a sentence, and so have a capital, without being names."""
