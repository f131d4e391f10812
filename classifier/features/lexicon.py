"""What the words of API operations mean: one table of meaning groups, shared by all protocols.

A word may stand in several groups. The groups are what lets a model that has seen
`transcribeAudio` judge `speech-to-text/recognise`; they say what is meant, never what it costs.
"""

from typing import Final

_TABLE: Final[dict[str, str]] = {
    "aithing": "assistant assistants agent agents prompt prompts thread threads voice voices finetunes "
    "knowledge memory memories vectorstore evals experiment experiments",
    "validate": "validate preview dryrun simulate-only plan estimate dry lint precheck preflight "
    "parse-only syntax evaluate-only check verify test",
    "template": "template templates setting settings preset presets preference preferences schedule "
    "schedules definition definitions policy policies rule rules config configs configuration option "
    "options subscription subscriptions destination destinations alias aliases saved draft layout",
    "get": "hget getitem findone obtener consultar leer lesen holen abrufen lire obtenir ler ottieni leggi consulter mget lindex fetchone byid select retrieved whois hover info get fetch retrieve read load lookup resolve detail details view single one obtain peek",
    "describe": "describe show info inspect desc about overview describes",
    "list": "listar lister auflisten elenco liste lista pages browse folder propfind list browse enumerate page items collection feed ls listing lists enum walk",
    "search": "buscar suchen chercher rechercher ricerca cerca pesquisar suche recherche searchread search find query filter match suggest suggestion autocomplete typeahead seek "
    "searches queries completion-field msearch lookupall finder locate discover nearby similar "
    "recommend recommendation recommendations related",
    "scan": "scantxoutset recurse recursive crawl dumptxoutset largest scan dump everything scroll iterate crawl traverse full unbounded whole complete "
    "entire alldocs",
    "count": "count total size number cnt counts length tally",
    "exists": "exists exist check has is contains available availability validate valid verify",
    "create": "crear erstellen anlegen creer crea criar incr set hset lpush rpush sadd xadd grant deposit mint create add new insert register make append place provision "
    "generate-key allocate enroll invite subscribe book reserve fork clone duplicate issue post "
    "initiate init open propose draft compose",
    "update": "actualizar aendern modifier aggiorna atualizar hset expire setstate transfer move signal withdraw update edit modify set patch change replace rename move assign attach detach link "
    "unlink enable disable toggle mark activate deactivate approve reject close lock unlock pin "
    "unpin star unstar follow unfollow adjust increment decrement accept decline confirm transition "
    "put reorder sort-order extend touch reschedule tag untag label associate disassociate "
    "acknowledge ack resolve-issue apply vote rate block unblock ban mute promote demote publish "
    "unpublish modifycolumnfamilies alter",
    "delete": "eliminar loeschen supprimer elimina excluir hdel decommission empty delete remove destroy purge drop clear unset revoke del erase deregister unregister "
    "uninstall forget discard expire evict invalidate unsubscribe trash rm void",
    "upsert": "upsert save store write merge putall index-doc ingest",
    "auth": "login logout auth oauth oauth2 token tokens session sessions signin signup signout "
    "authorize authenticate authentication authorization password otp mfa totp introspect consent "
    "credential credentials permission permissions sso saml oidc jwks refresh-token impersonate "
    "assume sts identity accesskey apikey apikeys captcha verifyemail userinfo openid 2fa passkey "
    "webauthn logon",
    "health": "health healthz ready readyz live livez ping alive heartbeat up healthcheck liveness "
    "readiness uptime pong hello noop echo startupz",
    "version": "version versions build buildinfo release changelog revision",
    "meta": "metadata schema schemas config configuration settings setting preferences features "
    "capabilities types options limits quota quotas flags manifest discovery wellknown "
    "well-known constants countries currencies languages locales timezones regions zones "
    "servertime time clock definition definitions properties conf cfg meta mapping mappings "
    "describeglobal typename enums i18n translations sitemap robots favicon swagger openapi docs "
    "flag feature parameters license licence env environment environments",
    "self": "me whoami self profile viewer myself current-user account mine own",
    "agg": "auswertung statistik estadisticas statistiques median regrouper analyze analysis aggregated counts sumby aggregate aggregation aggregations agg aggs sum avg average mean median percentile "
    "percentiles histogram group grouped groupby groups-by rollup pivot cube facets facet "
    "timeseries cohort cohorts funnel funnels trend trends breakdown distinct cardinality "
    "statistics stats stat summarize-by olap measures dimensions metrics-data tops leaderboard "
    "quantile stddev variance heatmap correlation rollups datehistogram summary "
    "totals aggregated significant topn timeboundary groupedby interval granularity uniques",
    "report": "report reports reporting insights insight dashboard dashboards statement statements "
    "analytics analysis analyse analyze kpi kpis ledger-report audit-report invoice-run forecast "
    "benchmark scorecard",
    "export": "exportar exporter dumps esporta unloads export exports download downloads extract unload csv xlsx takeout zip tar tarball "
    "exporter parquet exported archive offload xls printout",
    "import": "importar importer importa load loads fullload ingestion crawl scrape replicate clone import imports load-data bulkload sync synchronize synchronise resync migrate "
    "migration seed importer copyfrom dataload etl mirror harvest pull copy copyobject hydrate "
    "backfill crawlsite",
    "bulk": "bulk batch mass many multi batches bulkwrite batched multiple all each manymany "
    "unwind mutations operations",
    "job": "job jobs task tasks run runs execution executions workflow workflows pipeline "
    "pipelines operation dag dags cron schedule schedules queue queues builds worker process "
    "processing deployment deployments",
    "start": "calcular berechnen calculer calcola ejecutar executar ausfuehren execute runsync run_sync create-job start run execute exec launch trigger invoke dispatch enqueue process perform begin "
    "kick compute calculate rerun submit evaluate eval play invocations invocation call kickoff "
    "materialize submitjob startjob recalc",
    "stop": "stop cancel abort pause suspend terminate kill resume retry interrupt halt stopjob "
    "canceled cancelled hold release",
    "progress": "status progress state result results poll statuses describejob getjob eta outcome",
    "train": "train training finetune finetuning tune tuning fit learn retrain fine distill "
    "finetunes hyperparameter customization trainings lora automl",
    "infer": "recognise identify depict rerank similarity predict prediction predictions infer inference inferences classify classification "
    "score scoring detect detection recognize recognise recognition moderate moderation moderations "
    "rerank reranking rank ner sentiment anomaly annotate label-image segment segmentation "
    "rawpredict entities zeroshot analyzeimage vision scorer forecastmodel",
    "generate": "narrate completion respond ask answer story caption describe-image completion completions chat generate generation generations complete respond "
    "responses answer ask translate translation paraphrase rewrite summarize summarise "
    "summarization llm gpt converse conversation generatecontent "
    "generatetext streamgeneratecontent infill copilot fim synthesize synthesis "
    "dream txt2img img2img text2image imagine",
    "embed": "embed embeddings embedding vectorize embeds batchembedcontents embedcontent "
    "batchembed feature-extraction encodetext",
    "media": "image images video videos audio speech transcription transcriptions transcribe "
    "transcode transcoding tts stt ocr thumbnail thumbnails resize encode encoding encodings "
    "upscale stream speechtotext texttospeech voice watermark media recording subtitles caption "
    "captions dub clip clips variations edits mux ffmpeg photo face faces",
    "convert": "transform convertfile merge-pdf convert conversion conversions render rendering rendered pdf screenshot screenshots "
    "docx html2pdf compile minify compress ocrmypdf pandoc typeset parse partition",
    "optimize": "optimal planning optimizer backtests montecarlo var stress simulate simulator solvers rebalance optimize optimise optimization optimisation solve solver simulate simulation "
    "simulations tsp vrp montecarlo backtest allocation planner whatif schedule-optimize assignment "
    "optimizetours optimized solution scenario scenarios mrp nesting",
    "graph": "shortest path paths traversal pagerank community neighbors neighbours explore "
    "centrality graph shortestpath subgraph connected reachability lineage louvain",
    "geo": "route routes directions distancematrix isochrone isochrones matrix geocode geocoding "
    "elevation places tile tiles reverse",
    "maintain": "reconciliation rapprochement conciliar monthend closing cierre rescan dedup deduplicate pagerank decommission purge rewrite indexing recluster recalibrate reprice reallocate recover reindex vacuum compact compaction rebuild backup backups restore restores snapshot "
    "snapshots repair forcemerge flush defrag defragment gc cleanup prune refresh replicate "
    "replication recompute recalculate reconcile reconciliation rebalance truncate warmup "
    "checkpoint rotate shrink split reroute failover failback rollback upgrade reprocess reset "
    "scrub integrity renumber regenerate rollover clean tombstones dedupe deduplicate resize-cluster "
    "rebuildindex close-books yearend depreciation billrun payrun settle settlement reroll rehash",
    "trace": "trace debug explain replay profiler pprof heap tracing debugger flamegraph dryrun "
    "traceback tracecall",
    "logs": "log logs events audit history timeline activity activities event traces spans",
    "send": "send notify emit push sms email mail webhook webhooks callback hook hooks notification "
    "notifications broadcast message messages msg deliver track identify telemetry beacon collect "
    "capture-event enqueue-message sendmessage topic topics inbox",
    "pay": "charge charges payment payments refund refunds capture payout payouts checkout order "
    "orders invoice invoices subscription subscriptions cart basket intent intents",
    "latest": "latest current last newest now today recent next active default primary head tip "
    "finalized safe pending",
    "tree": "tree recursive deep nested descendants ancestors hierarchy children subtree expand "
    "recursively",
    "tokenize": "tokenize tokenizer counttokens detokenize tokenization tokencount",
    "price": "price quote estimate rate rates fee fees balance cost gas gasprice amount",
    "block": "block transaction transactions receipt receipts blocks nonce blockhash logs-filter",
    "user": "user users member members customer customers account accounts people person contact "
    "contacts organization organizations team teams employee employees tenant tenants owner group "
    "groups",
    "thing": "product products item file files folder folders document documents doc record "
    "records object objects node nodes entry entries page pages comment comments project projects "
    "issue issues ticket tickets post posts repo repos repository repositories bucket buckets "
    "table tables database databases collection collections index indexes indices dataset datasets "
    "row rows key keys resource resources asset assets device devices instance instances cluster "
    "clusters service services namespace namespaces pod pods secret secrets volume volumes "
    "container containers network networks rule rules policy policies role roles tag tags model "
    "models channel channels thread threads form forms domain domains certificate certificates "
    "location locations category categories shipment shipments booking bookings review reviews",
}


def _by_word() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for group, words in _TABLE.items():
        for word in words.split():
            found.setdefault(word, []).append(group)
    return {word: tuple(groups) for word, groups in found.items()}


GROUPS_BY_WORD: Final = _by_word()

# Words that stand in paths as themselves, where an unknown word after a plural would be a key.
LITERALS: Final = frozenset(
    "method methods requete abfrage data gateway endpoint action actions command commands cmd call calls do"
    "handler service rpc ajax soap ws wsdl asmx php cgi jsp index home main body head mode custom attributes attr"
    "distance between near radius area bounds region regions zone zones country city street postal zip shape shapes"
    "views view design rev revs partition partitions shard shards replica replicas segment segments mapping aliases"
    "property subscribers subscribe unsubscribe participants attendees invitees guests reservations appointment"
    "transition worklog attachments activity feed timeline following followers likes like dislikes reactions reaction"
    "playlists tracks albums artists genre genres season episodes credits cast crew reviews ratings rating score scores"
    "quotes quote orders line-items fulfillments fulfillment shipping-rates tax taxes discounts discount coupon coupons"
    "price-rules gift-cards refunds disputes dispute payouts charges ledger entries journal entry accounts statement"
    "holders positions position trades fills candles klines depth ticker tickers orderbook book markets market instruments"
    "issues milestones sprint sprints board boards backlog epic epics card cards column columns checklists checklist"
    "pipeline stage stages steps step artifacts artifact runners runner variables variable environments environment"
    "branch commit tag release releases compare contents readme archive tarball zipball languages topics collaborators api rest rpc v1 v2 v3 v4 public private internal external admin system ops core data query "
    "graphql sql services web app apps site sites service default sub by id ids name names slug "
    "email code uuid sku external-id recent popular trending featured upcoming archived deleted "
    "draft drafts pending open closed completed failed active inactive enabled with from to in for "
    "and or of on at preview test validate price address billing shipping inventory stock content "
    "contents raw attachment attachments avatar picture cover logo icon permission members owner "
    "parent child children relationships relationship link links ref refs branches commits pulls "
    "merge diff compare blob blobs trees assets hooks subscribers subscriptions watchers stars "
    "forks contributors labels milestones invitation invitations assignees line lines field "
    "fields column columns value values cell cells range ranges sheet note notes draft revision "
    "revisions translations variants variant options option attribute attributes media usage limit "
    "balance balances transaction cost costs budget budgets alarm alarms alert alerts target "
    "targets series label metric metrics probe config configs proxy upstream upstreams route "
    "plugin plugins consumer consumers binding bindings exchange exchanges vhost vhosts connection "
    "connections node cluster leader peers peer member agent catalog kv lease leases secret store "
    "engine engines deployment model models file files result results output outputs input inputs "
    "part parts chunk chunks upload uploads acl cors tagging versioning lifecycle notification "
    "logging encryption website point points vector vectors payload scroll count facet document "
    "template templates scope scopes client clients realm realms credential key keys certificate "
    "public-key signature sign decrypt encrypt hash random bytes geometry feature layer map maps "
    "stop stops departures arrivals trip trips vehicle vehicles weather forecast current hourly "
    "daily minutely historical day week month year date calendar calendars free busy slots".split()
)
