-- What wrk asks. BENCH_BODY: post this XML document. BENCH_DOMAINS: ask for one of so many domains
-- at random; their names are those of bench/rows.py.
local body = os.getenv("BENCH_BODY")
local domains = tonumber(os.getenv("BENCH_DOMAINS"))

if body then
   wrk.method = "POST"
   wrk.body = body
   wrk.headers["Content-Type"] = "text/xml; charset=utf-8"
end

if domains then
   math.randomseed(os.time())
   request = function()
      local number = 1000000 + math.random(0, domains - 1)
      return wrk.format("GET", wrk.path .. "?emailaddress=alice@d" .. number .. ".example")
   end
end
