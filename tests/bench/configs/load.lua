-- A POST with the body in the file that is named after "--", or a GET if that is empty. The request
-- stays the same, so that wrk makes it once; unless "traced" follows: then it has fields as browsers
-- send them, and one that is never the same. At the end all figures are printed as JSON.
function init(args)
  local file = assert(io.open(args[1], "rb"))
  local body = file:read("*a")
  file:close()
  if #body > 0 then
    wrk.method = "POST"
    wrk.body = body
    wrk.headers["Content-Type"] = "application/json"
  end
  if args[2] == "traced" then
    wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    wrk.headers["Accept"] = "application/json, text/plain, */*"
    wrk.headers["Accept-Encoding"] = "gzip, deflate, br"
    wrk.headers["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3"
    wrk.headers["Cookie"] = "session=0123456789abcdef0123456789abcdef"
    local count = 0
    request = function()
      count = count + 1
      wrk.headers["Traceparent"] = string.format("00-%032x-%016x-01", count, count)
      return wrk.format()
    end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'wrk-figures {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": '
      .. '{"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect, e.read, e.write, e.timeout, e.status))
end
