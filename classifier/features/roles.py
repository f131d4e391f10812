"""What part an argument's name plays: key, filter, bound, group, or mere form of the answer."""

import re
from functools import lru_cache
from typing import Final

from classifier.features.vocabulary import vocabulary
from classifier.features.words import split_name, unaccented

_TABLE: Final = """
neutral: apikey token accesstoken appid appkey clientid clientsecret secret signature sig nonce
    jwt auth
    password apitoken authtoken sessiontoken timestamp f wt alt lang language locale hl gl units
    unit pretty callback version v apiversion ver tz timezone fields select fl part prop props
    properties field columns column attributes projection exclude omit view mode outputmode jsonp
    indent encoding charset database db dataset datasource keyspace schema namespace tenant org
    collection tenantid siteid workspace project region country currency markets market
    includelocale envelope level consistency epoch ns u p preview context feed style profile
    minify rawjson raw human h verbose help explain cache nocache requestid correlationid trace
    parameters params options stats disablestats json xml jscmd loc mask meta keytype dc
limit: limit size perpage pagesize first last take top maxresults n rows hitsperpage maxitems
    maxkeys num pagelength batchsize rpp maxcount itemsperpage resultsperpage pagelimit maxrows
    rowlimit fetchsize maxrecords maxresultcount ps max k topk hits topp sysparmlimit tamano
    adet anzahl limite taille cantidad tamanho
page: page offset cursor after before startingafter endingbefore pagetoken nexttoken skip marker
    continue continuationtoken startat startindex pagenumber pageno startkey nextpagetoken
    pageindex start scrollid searchafter position pagination sort order orderby sortby sortorder
    ordering sorts direction sortfield sortdir descending ascending reverse skiptoken partition
    delimiter sortbymetric desc asc pagina seite sortierung orden sayfa strona halaman strana
    sortuj yema yeshu
time: from since starttime startdate begin fromdate datefrom timestart gte gt to end until
    endtime enddate todate dateto endat lte lt date period days range window duration daterange
    timerange lookback timeframe month year week day createdafter createdbefore updatedafter
    updatedsince modifiedsince starttimestamp endtimestamp fromtime totime datestart dateend
    statsperiod von bis desde hasta inicio fin debut kaishi jieshu baslangic bitis dari sampai
    mindate maxdate asof interval step periods history hours minutes seconds
group: groupby facet facets aggregate aggregates aggregation aggregations agg aggs apply rollup
    dimensions dimension measures measure breakdown breakout breakouts granularity groupfield
    aggregatedby by agruparpor agrupar regrouperpar gruppierung gruppierennach bucketby
    facetfield groupbys pivot having distinct countby resolution timegrain histogram groupings
    groupingsets metrics measurements
search: q query search term keyword keywords text searchterm buscar suche searchtext searchquery
    fulltext querystring phrase radius bbox bounds near within polygon geometry nearby input
    autocomplete prefix match jql cql busqueda recherche cerca
filter: selection filter filters where condition conditions status state type predicate criteria
    category
    filterexpression predicate selector wheres fq kind tag tags label labels labelselector
    fieldselector
all: all full recursive deep recurse includeall everything depth deepscan list fullrefresh
    allversions expandall includedocs includedeleted
expand: expand include embed populate appendtoresponse relations includes with sideload
    includerelated additionalfields joins with_related
render: render renderjs screenshot screenshotfullpage javascript jsrender executejs
heavy: optimize reindex rebuild vacuum compact forcemerge repack fullrefresh refit regenerate
    recompute
    maxsegments
watch: watch follow stream sse subscribe livestream poll
key: lat lon lng latitude longitude coordinates coords latlng login username email host hostname
    path uri url ip domain filename file hash sku isbn slug symbol ticker uuid guid digest code
    handle idlist list_ids channel point ref nr nummer numero codigo arn bibkeys titles title
    address
count: count withcount countonly
format: format output outputformat exportformat responseformat filetype contenttype rettype
"""
_ROLES: Final = {
    word: role
    for role, _, words in (
        entry.partition(":") for entry in _TABLE.replace("\n ", " ").strip().splitlines()
    )
    for word in words.split()
}
_KEY_ENDS: Final = vocabulary("""
    id uuid guid key name code number slug hash email login username sku symbol ticker isbn url
    uri path token address arn urn
""")
_MANY_ENDS: Final = vocabulary("ids keys uuids codes names symbols guids")
_TIME_ENDS: Final = vocabulary("""
    date time from to since until after before start end gte lte gt lt begin datetime
""")
_ENDS: Final = (
    (_KEY_ENDS, "key"), (_MANY_ENDS, "key"), (_TIME_ENDS, "time"),
    (vocabulary("limit size count max"), "limit"),
    (vocabulary("page cursor offset sort order token"), "page"),
    (vocabulary("fields select columns"), "neutral"),
    (vocabulary("query search"), "search"),
    (vocabulary("filter filters"), "filter"),
    (vocabulary("format"), "format"),
)  # fmt: skip
_NOT_LETTERS: Final = re.compile(r"[^a-z]")


@lru_cache(maxsize=4096)
def role_of(key: str) -> str:
    """The role of an argument by its name, "" if the name says nothing."""
    inner = [piece for piece in re.split(r"[\[\]]+", key[:120]) if piece and not piece.isdigit()]
    name = inner[-1] if inner else key[:60]
    flat = _NOT_LETTERS.sub("", unaccented(name).lower())
    if flat in _ROLES:
        return _ROLES[flat]
    words = split_name(name)
    last = words[-1] if words else ""
    return next((role for ends, role in _ENDS if last in ends), "")
