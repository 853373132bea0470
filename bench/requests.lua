-- What wrk asks. BENCH_BODY: post this XML document. BENCH_DOMAINS: ask for one of so many domains
-- at random; their names are those of bench/rows.py if BENCH_PREFIX is "d". BENCH_FILES: ask for their
-- files below the path, in folders as automx publish makes them. BENCH_PEOPLE: ask for one of so many
-- people at random, of the domain BENCH_DOMAIN; their names are those of tests/directory.py.
local body = os.getenv("BENCH_BODY")
local domains = tonumber(os.getenv("BENCH_DOMAINS"))
local prefix = os.getenv("BENCH_PREFIX")
local files = os.getenv("BENCH_FILES")
local people = tonumber(os.getenv("BENCH_PEOPLE"))
local domain = os.getenv("BENCH_DOMAIN")

if body then
   wrk.method = "POST"
   wrk.body = body
   wrk.headers["Content-Type"] = "text/xml; charset=utf-8"
end

if domains then
   math.randomseed(os.time())
   request = function()
      local number = 1000000 + math.random(0, domains - 1)
      if files then
         local folder = string.format("/%02d/", number % 100)
         return wrk.format("GET", wrk.path .. folder .. prefix .. number .. ".example")
      end
      return wrk.format("GET", wrk.path .. "?emailaddress=alice@" .. prefix .. number .. ".example")
   end
end

if people then
   math.randomseed(os.time())
   request = function()
      local person = string.format("person%04d@%s", math.random(0, people - 1), domain)
      return wrk.format("GET", wrk.path .. "?emailaddress=" .. person)
   end
end
