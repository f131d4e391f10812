"""Nouns that say how much stands behind a path, where its grammar does not.

`inventory`, `timeline` and `directory` are collections though singular; `settings`, `limits` and
`capabilities` are single things though plural; `countries` and `formats` are small and fixed.
"""

from typing import Final

_TABLE: Final = """
health: health healthz healthcheck healthy livez live alive liveness liveliness ready readyz
    readiness ping up heartbeat readinesscheck livenesscheck selftest estado zustand bereit
    betriebsbereit
meta: version info about metadata schema capabilities openapi swagger wsdl manifest conformance
    config configuration settings setting preferences props properties attributes limits quota
    quotas features time clock serverinfo buildinfo systeminfo sysinfo runtimeinfo jwks licence
    license echo hardware overview publickey theme branding parameters versions motd einstellungen
    konfiguration configuracion ajustes parametres reglages pengaturan ustawienia shezhi nastroyki
    serverversion serviceproviderconfig configvars environment env init bootstrap discovery
    wellknown openidconfiguration permissions policy acl cors lifecycle location region toggles
    definition describe details endpoint rules apiinfo featureflags localization units unit
    permission access privileges timestamp now
status: status progress state stato durum statut stand etat position presence availability
    availabilities power uptime lag pressure zustand status-check seal leader master primary
    position current
self: me myself self whoami profile viewer userinfo identity calleridentity whoamirequest session
    credentials account user org organization organisation shop store site athlete player wallet
    currentuser viewer myaccount company tenant
value: balance balances credits credit price quote ticker rate weather nonce height tip latest
    last gas fee usage saldo solde kontostand pricing exchange-rate wallet points score position
    elevation timezone distance checksum digest etag name thumbnail avatar icon signature
    next-number sequence
count: count counts cnt anzahl cantidad nombre numero liczba jumlah length total totals unread
    unreadcount approximatecount itemcount size liczbapozycji badge
small: countries currencies languages locales timezones types classes formats voices samplers
    engines regions zones sizes flavors plans genres kinds scopes statuses priorities units
    schedulers codecs fonts themes icons colors colours models upscalers embeddings loras slots
    backends providers connectors continents provinces airports airlines licenses gitignores
    sources taxonomies dialects infotypes eventtypes issuetypes categories videocategories
    shippingmethods paymentmethods gateways carriers salutations titles industries states
    namespaces databases tariffs levels grades lexicons editions platforms architectures
    permissions privileges modules plugins extensions keywords dimensions indicators upstreams
    brokers nodes peers
feed: inventory history feed timeline timelines audit auditlog log logs directory catalog
    catalogue roster backlog queue library playlist portfolio watchlist agenda calendar ledger
    journal activity activities stream newsfeed inbox outbox sent trash archive listing registry
    menu wishlist staff personnel crew cast lineup board home news traffic changes changelog
    delta commits starred events transactions items entries children followers following
    subscriptions members participants messages comments notifications alarms alerts active
    search-results detail roster mailbox guestbook calls conversations threads orderbook depth
    candles klines trades observations readings measurements
agg: stats statistics statistic stat aggregate aggregates aggregation aggregations histogram
    percentiles facets breakdown funnel funnels retention cohort trend trends leaderboard summary
    insights metrics rollup rollups timeseries heatmap distribution analytics auswertung
    statistik estadisticas statistiques kennzahlen usagestats totals correlation segmentation
    pivot crosstab tally olap
report: report reports reporting dashboard trialbalance balancesheet profitandloss cashflow
    scorecard statement statements benchmark bilan bericht informe relatorio rapport laporan rapor
    otchet otchety baobiao agedreceivables generalledger kpi kpis
export: export exports download downloads dump dumps backup backups takeout archive tarball zip
    zipball csv xlsx parquet snapshot snapshots bulk scroll unload extract extracts datadump
    workspace image-file blob
render: render rendering pdf screenshot screenshots png thumbnail-generate transcode transcoding
    preview-image chart convert conversion compile ocr
search: search find lookup query select filter suggest autocomplete typeahead queries match
    explore discover browse nearby recommend recommendations related similar suggestions complete
geo: route routes directions geocode geocoding reverse elevation nearest locate places tile tiles
    timezone maptile geolocate
geo-heavy: matrix isochrone isochrones isolines isoline table trip trips optimization optimizedtrips
    directionsmatrix distancematrix routematrix tsp vrp tours reachability
job: job jobs task tasks run runs execution executions operation operations build builds batch
    batches import imports exportjob process processes workflow workflows pipeline pipelines
tree: tree descendants ancestors hierarchy children subtree graph lineage dependencies
    dependency closure sitemap
bulk: bulk batch multi many mass all
stream: watch stream streaming subscribe follow tail sse live longpoll longpolling
auth: key apikey apikeys secret password otp link url invite code token tokens login logout
    authorize oauth auth signin signup verify session sessions
"""


def _by_word(table: str) -> dict[str, str]:
    """The first class of each word."""
    found: dict[str, str] = {}
    for entry in table.replace("\n ", " ").strip().splitlines():
        kind, _, words = entry.partition(":")
        for word in words.split():
            found.setdefault(word.replace("-", ""), kind)
    return found


NOUNS: Final = _by_word(_TABLE)
