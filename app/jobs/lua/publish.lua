-- Number events and hand them to whoever follows.
-- ARGV: sequence key pattern, stream key pattern, channel pattern, tenant stream pattern, then for each event:
-- job, tenant, seed (the last number the ledger knows), "progress" | "state" | "end", body without its number.
-- A job that never reported has no stream: its events are only published, numbered from the seed.
-- Returns each event's number.
local function named(pattern, name)
    return (string.gsub(pattern, "{}", function() return name end)) -- a name may hold what gsub takes for its own
end

local answer = {}
for i = 5, #ARGV, 5 do
    local job, tenant, seed, kind, body = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4]
    local counter = named(ARGV[1], job)
    local stream = named(ARGV[2], job)
    local known = tonumber(redis.call("get", counter) or "-1")
    local number = math.max(known, seed) + 1
    local event = '{"seq":' .. number .. "," .. string.sub(body, 2)
    if kind ~= "end" or known >= 0 then
        local ttl = kind == "end" and 3600 or 86400
        redis.call("set", counter, number, "EX", ttl)
        redis.call("xadd", stream, "MAXLEN", "~", 200, number .. "-0", "e", event)
        redis.call("expire", stream, ttl)
    end
    redis.call("publish", named(ARGV[3], job), event)
    local all = named(ARGV[4], tenant)
    local place = redis.call("xadd", all, "MAXLEN", "~", 10000, "*", "e", event)
    redis.call("expire", all, 86400)
    redis.call("publish", named(ARGV[3], "t:" .. tenant), place .. " " .. event)
    answer[#answer + 1] = number
end
return answer
