"""What the words of API operations mean: one table of meaning groups, shared by all protocols.

A word may stand in several groups. The groups are what lets a model that has seen
`transcribeAudio` judge `speech-to-text/recognise`; they say what is meant, never what it costs.
"""

from typing import Final

from classifier.features.vocabulary import vocabulary

# A group, a colon, its words; indented lines go on with the group above.
_TABLE: Final = """
catalog: model models engine engines language languages country countries currency
    currencies timezone timezones locale locales airline airlines color colors size sizes
    plan plans sku formats codecs units scopes
aithing: assistant assistants agent agents prompt prompts thread threads voice voices
    finetunes knowledge memory memories vectorstore evals experiment experiments
validate: validate preview dryrun dry lint precheck preflight syntax check verify test
template: template templates setting settings preset presets preference preferences schedule
    schedules definition definitions policy policies rule rules config configs configuration
    option options subscription subscriptions destination destinations alias aliases saved
    draft layout
get: xiangqing poluchit syousai detay ayrinti szczegoly einzeln
    hget getitem findone obtener consultar leer lesen holen abrufen lire obtenir ler
    ottieni leggi consulter mget lindex fetchone byid select retrieved whois hover info get
    fetch retrieve read load lookup resolve detail details view single one obtain peek
describe: describe show info inspect desc about overview describes
list: spisok liebiao daftar listele ichiran overzicht uebersicht
    listar lister auflisten elenco liste lista pages browse folder propfind list enumerate
    page items collection feed ls listing lists enum walk
search: sousuo chaxun poisk kensaku szukaj wyszukaj cari zoeken busca busqueda soek ara arama
    pencarian
    buscar suchen chercher rechercher ricerca cerca pesquisar suche recherche searchread
    search find query filter match suggest suggestion autocomplete typeahead seek searches
    queries msearch lookupall finder locate discover nearby similar recommend recommendation
    recommendations related
scan: scantxoutset recurse recursive crawl dumptxoutset largest scan dump everything scroll
    iterate traverse full unbounded whole complete entire alldocs
count: count total size number cnt counts length tally
exists: exists exist check has is contains available availability validate valid verify
create: sozdat utworz dodaj buat tambah chuangjian tianjia xinzeng touroku toevoegen opret ekle
    nuevo novo neu nouveau
    crear erstellen anlegen creer crea criar incr set hset lpush rpush sadd xadd grant
    deposit mint create add new insert register make append place provision allocate enroll
    invite subscribe book reserve fork clone duplicate issue post initiate init open propose
    draft compose
update: obnovit zmien aktualizuj aktualisieren actualizar atualizar aggiorna perbarui gengxin
    xiugai guncelle bijwerken koushin modifier
    actualizar aendern modifier aggiorna atualizar hset expire setstate transfer move
    signal withdraw update edit modify set patch change replace rename assign attach detach
    link unlink enable disable toggle mark activate deactivate approve reject close lock
    unlock pin unpin star unstar follow unfollow adjust increment decrement accept decline
    confirm transition put reorder extend touch reschedule tag untag label associate
    disassociate acknowledge ack apply vote rate block unblock ban mute promote demote
    publish unpublish modifycolumnfamilies alter
delete: udalit usun hapus shanchu sil verwijderen sakujo loeschen eliminar excluir supprimer
    cancella
    eliminar loeschen supprimer elimina excluir hdel decommission empty delete remove
    destroy purge drop clear unset revoke del erase deregister unregister uninstall forget
    discard expire evict invalidate unsubscribe trash rm void
upsert: upsert save store write merge putall ingest
auth: login logout auth oauth oauth2 token tokens session sessions signin signup signout
    authorize authenticate authentication authorization password otp mfa totp introspect
    consent credential credentials permission permissions sso saml oidc jwks impersonate
    assume sts identity accesskey apikey apikeys captcha verifyemail userinfo openid 2fa
    passkey webauthn logon
health: health healthz ready readyz live livez ping alive heartbeat up healthcheck liveness
    readiness uptime pong hello noop echo startupz
version: version versions build buildinfo release changelog revision
meta: metadata schema schemas config configuration settings setting preferences features
    capabilities types options limits quota quotas flags manifest discovery wellknown
    constants countries currencies languages locales timezones regions zones servertime time
    clock definition definitions properties conf cfg meta mapping mappings describeglobal
    typename enums i18n translations sitemap robots favicon swagger openapi docs flag
    feature parameters license licence env environment environments
self: me whoami self profile viewer myself account mine own
agg: shukei tongji resumen resumo totales totalen podsumowanie ozet ringkasan svodnaya
    zusammenfassung agregado agrupado gruppiert synthese consolidado
    auswertung statistik estadisticas statistiques median regrouper analyze analysis
    aggregated counts sumby aggregate aggregation aggregations agg aggs sum avg average mean
    percentile percentiles histogram group grouped groupby rollup pivot cube facets facet
    timeseries cohort cohorts funnel funnels trend trends breakdown distinct cardinality
    statistics stats stat olap measures dimensions tops leaderboard quantile stddev variance
    heatmap correlation rollups datehistogram summary totals significant topn timeboundary
    groupedby interval granularity uniques
report: reporte informe informes relatorio relatorios rapport rapports rapporto rapporti bericht
    berichte raport raporty rapor raporlar laporan otchet otchety baobiao houkoku rapportage
    svodka verslag
    report reports reporting insights insight dashboard dashboards statement statements
    analytics analysis analyse analyze kpi kpis forecast benchmark scorecard
export: exporter exportieren exporteren esportare eksport eksportuj ekspor disaaktar daochu
    vygruzka vygruzit shutsuryoku descargar herunterladen telecharger baixar scarica unduh
    indir pobierz
    exportar exporter dumps esporta unloads export exports download downloads extract
    unload csv xlsx takeout zip tar tarball parquet exported archive offload xls printout
import: importieren importeren importare importuj impor daoru zagruzka zagruzit iceaktar torikomi
    stapelimport carga ingest ingestion
    importar importer importa load loads fullload ingestion crawl scrape replicate clone
    import imports bulkload sync synchronize synchronise resync migrate migration seed
    copyfrom dataload etl mirror harvest pull copy copyobject hydrate backfill crawlsite
bulk: masivo masiva massivo lote lotes stapel massen masse lot lotto masowy masowo toplu massal
    piliang ikkatsu massovo paquete massa bulto
    bulk batch mass many multi batches bulkwrite batched multiple all each manymany unwind
    mutations operations
job: job jobs task tasks run runs execution executions workflow workflows pipeline pipelines
    operation dag dags cron schedule schedules queue queues builds worker process processing
    deployment deployments
start: recalcular neuberechnen recalculer przelicz hitung hesapla raschet rasschitat keisan
    jisuan bereken procesar processar verarbeiten traiter
    calcular berechnen calculer calcola ejecutar executar ausfuehren execute runsync
    start run exec launch trigger invoke dispatch enqueue process perform begin kick compute
    calculate rerun submit evaluate eval play invocations invocation call kickoff
    materialize submitjob startjob recalc
stop: stop cancel abort pause suspend terminate kill resume retry interrupt halt stopjob
    canceled cancelled hold release
progress: zhuangtai durum sostoyanie estado zustand stato joutai statut situacao
    syncing status progress state result results poll statuses describejob getjob eta
    outcome
train: entrenar entrenamiento treinar trainieren entrainer addestra xunlian gakushu obuchit egit
    train training finetune finetuning tune tuning fit learn retrain fine distill
    finetunes hyperparameter customization trainings lora automl
infer: clasificar klassifizieren classifier raspoznavanie raspoznat shibie ninshiki erkennen
    reconocer reconhecer prever predecir vorhersage prevoir
    recognise identify depict rerank similarity predict prediction predictions infer
    inference inferences classify classification score scoring detect detection recognize
    recognition moderate moderation moderations reranking rank ner sentiment anomaly
    annotate segment segmentation rawpredict entities zeroshot analyzeimage vision scorer
    forecastmodel
generate: generar gerar erzeugen generer genera generuj olustur shengcheng seisei genereren
    sgenerirovat traducir traduzir uebersetzen traduire fanyi honyaku perevod wenda
    zusammenfassen resumir
    narrate completion respond ask answer story caption completions chat generate
    generation generations complete responses translate translation paraphrase rewrite
    summarize summarise summarization llm gpt converse conversation generatecontent
    generatetext streamgeneratecontent infill copilot fim synthesize synthesis dream txt2img
    img2img text2image imagine
embed: embed embeddings embedding vectorize embeds batchembedcontents embedcontent
    batchembed encodetext
media: image images video videos audio speech transcription transcriptions transcribe
    transcode transcoding tts stt ocr thumbnail thumbnails resize encode encoding encodings
    upscale stream speechtotext texttospeech voice watermark media recording subtitles
    caption captions dub clip clips variations edits mux ffmpeg photo face faces
convert: build compile bake bundle rasterize typesetting transpile webpack konvertieren umwandeln
    convertir converter converti zhuanhuan henkan
    transform convertfile convert conversion conversions render rendering rendered pdf
    screenshot screenshots docx html2pdf compile minify compress ocrmypdf pandoc typeset
    parse partition
optimize: optimizar optimieren optimiser ottimizza youhua saitekika
    optimal planning optimizer backtests montecarlo var stress simulate simulator
    solvers rebalance optimize optimise optimization optimisation solve solver simulation
    simulations tsp vrp backtest allocation planner whatif assignment optimizetours
    optimized solution scenario scenarios mrp nesting
graph: shortest path paths traversal pagerank community neighbors neighbours explore
    centrality graph shortestpath subgraph connected reachability lineage louvain
geo: route routes directions distancematrix isochrone isochrones matrix geocode geocoding
    elevation places tile tiles reverse
maintain: reindexar reindexieren neuindexieren perestroit respaldo sicherung sauvegarde salvaguarda
    wiederherstellen restaurar restaurer cierre fechamento cloture abschluss zamkniecie
    kapanis przelicz rebuilding reprocesar reprocessar
    reconciliation rapprochement conciliar monthend closing cierre rescan dedup
    deduplicate pagerank decommission purge rewrite indexing recluster recalibrate reprice
    reallocate recover reindex vacuum compact compaction rebuild backup backups restore
    restores snapshot snapshots repair forcemerge flush defrag defragment gc cleanup prune
    refresh replicate replication recompute recalculate reconcile rebalance truncate warmup
    checkpoint rotate shrink split reroute failover failback rollback upgrade reprocess
    reset scrub integrity renumber regenerate rollover clean tombstones dedupe rebuildindex
    yearend depreciation billrun payrun settle settlement reroll rehash
trace: trace debug explain replay profiler pprof heap tracing debugger flamegraph dryrun
    traceback tracecall
logs: log logs events audit history timeline activity activities event traces spans
send: send notify emit push sms email mail webhook webhooks callback hook hooks notification
    notifications broadcast message messages msg deliver track identify telemetry beacon
    collect sendmessage topic topics inbox
pay: dingdan siparis siparisler pesanan zakaz zakazy zamowienie zamowienia pedido pedidos
    bestellung bestellungen commande commandes factura facturas fatura rechnung rechnungen
    facture ordine ordini
    charge charges payment payments refund refunds capture payout payouts checkout order
    orders invoice invoices subscription subscriptions cart basket intent intents
latest: latest current last newest now today recent next active default primary head tip
    finalized safe pending
tree: tree recursive deep nested descendants ancestors hierarchy children subtree expand
    recursively
tokenize: tokenize tokenizer counttokens detokenize tokenization tokencount
price: price quote estimate rate rates fee fees balance cost gas gasprice amount
block: block transaction transactions receipt receipts blocks nonce blockhash
user: yonghu kullanici pengguna polzovatel uzytkownik usuario utilisateur benutzer utente
    klient kunde kunden cliente clientes
    user users member members customer customers account accounts people person contact
    contacts organization organizations team teams employee employees tenant tenants owner
    group groups
thing: product products item file files folder folders document documents doc record records
    object objects node nodes entry entries page pages comment comments project projects
    issue issues ticket tickets post posts repo repos repository repositories bucket buckets
    table tables database databases collection collections index indexes indices dataset
    datasets row rows key keys resource resources asset assets device devices instance
    instances cluster clusters service services namespace namespaces pod pods secret secrets
    volume volumes container containers network networks rule rules policy policies role
    roles tag tags model models channel channels thread threads form forms domain domains
    certificate certificates location locations category categories shipment shipments
    booking bookings review reviews
"""


def _by_word(table: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for entry in table.replace("\n ", " ").strip().splitlines():
        group, _, words = entry.partition(":")
        for word in words.split():
            found.setdefault(word, []).append(group)
    return {word: tuple(groups) for word, groups in found.items()}


GROUPS_BY_WORD: Final = _by_word(_TABLE)

# Words that stand in paths as themselves, where an unknown word after a plural would be a key.
LITERALS: Final = vocabulary("""
    abfrage accounts acl action actions active activity address admin agent ajax alarm alarms
    albums alert alerts aliases and api app appointment apps archive archived area arrivals
    artifact artifacts artists asmx assets assignees at attachment attachments attendees attr
    attribute attributes avatar backlog balance balances between billing binding bindings blob
    blobs board boards body book bounds branch branches budget budgets busy by bytes calendar
    calendars call calls candles card cards cast catalog cell cells certificate cgi charges
    checklist checklists child children chunk chunks city client clients closed cluster cmd code
    collaborators column columns command commands commit commits compare completed config configs
    connection connections consumer consumers content contents contributors core cors cost costs
    count country coupon coupons cover credential credits crew current custom daily data date day
    decrypt default deleted departures deployment depth design diff discount discounts dislikes
    dispute disputes distance do document draft drafts email enabled encrypt encryption endpoint
    engine engines entries entry environment environments epic epics episodes exchange exchanges
    external external-id facet failed feature featured feed field fields file files fills
    followers following for forecast forks free from fulfillment fulfillments gateway genre genres
    geometry gift-cards graphql guests handler hash head historical holders home hooks hourly icon
    id ids in inactive index input inputs instruments internal inventory invitation invitations
    invitees issues journal jsp key keys klines kv label labels languages layer leader lease
    leases ledger lifecycle like likes limit line line-items lines link links logging logo main
    map mapping maps market markets media member members merge method methods metric metrics
    milestones minutely mode model models month name names near node note notes notification of on
    open ops option options or orderbook orders output outputs owner parent part participants
    partition partitions parts payload payouts peer peers pending permission php picture pipeline
    playlists plugin plugins point points popular position positions postal preview price
    price-rules private probe property proxy public public-key pulls query quote quotes radius
    random range ranges rating ratings raw reaction reactions readme realm realms recent ref refs
    refunds region regions relationship relationships release releases replica replicas requete
    reservations rest result results rev reviews revision revisions revs route rpc runner runners
    scope scopes score scores scroll season secret segment segments series service services shape
    shapes shard shards sheet shipping shipping-rates sign signature site sites sku slots slug
    soap sprint sprints sql stage stages stars statement step steps stock stop stops store street
    sub subscribe subscribers subscriptions system tag tagging tarball target targets tax taxes
    template templates test ticker tickers timeline to topics tracks trades transaction transition
    translations trees trending trip trips unsubscribe upcoming upload uploads upstream upstreams
    usage uuid v1 v2 v3 v4 validate value values variable variables variant variants vector
    vectors vehicle vehicles versioning vhost vhosts view views watchers weather web website week
    with worklog ws wsdl year zip zipball zone zones
""")
