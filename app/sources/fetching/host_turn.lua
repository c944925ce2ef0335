-- Turns at one host across all workers: one request at a time, a pause after each, and a queue of waiting requests.
-- ARGV: key, verb, token, microseconds. Returns a wait in microseconds; the key expires with its latest time.
--   place  (gap, longest)  join the queue, return the wait until the turn; if it exceeds `longest`, return a negative
--                          value: retry after that time. Each refused caller gets a later time than the previous one.
--   begin  (lease)         return 0 if the caller holds the host now; the lease ends the hold
--   finish (gap)           release the host; the next request may begin after the gap
--   pause  (seconds)       no request begins before this time
local key, verb, token, first, second = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5] or "0")
local time = redis.call("time")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local kept = redis.call("hmget", key, "line", "free", "lease", "holder", "far")
local line, free, lease = tonumber(kept[1] or "0"), tonumber(kept[2] or "0"), tonumber(kept[3] or "0")
local far, furthest = tonumber(kept[5] or "0"), 900000000
local holder = kept[4] or ""
if lease <= now then
    holder, lease = "", 0
end
local wait = 0
if verb == "place" then
    local start = math.max(now, line, free)
    wait = start - now
    if wait > second then
        far = math.min(math.max(far, start) + first, now + math.max(wait, furthest))
        wait = now - far
    else
        line = start + first
    end
elseif verb == "begin" then
    if holder ~= "" and holder ~= token then
        return lease - now
    end
    if free > now then
        return free - now
    end
    holder, lease = token, now + first
elseif verb == "finish" then
    if holder == token then
        holder, lease = "", 0
        free = math.max(free, now + first)
    end
else
    free = math.max(free, now + first)
end
local last = math.max(line, free, lease, far)
local number = function(value) return string.format("%.0f", value) end
redis.call("hset", key, "line", number(line), "free", number(free), "lease", number(lease), "holder", holder, "far", number(far))
redis.call("pexpire", key, math.max(1, math.ceil((last - now) / 1000)) + 1000)
return wait
