-- Take the next place in the line of a key, by the generic cell rate algorithm: one number holds the whole bucket.
-- ARGV: key, microseconds between two calls, calls that may come at once, longest wait in microseconds.
-- Returns the wait in microseconds, and 1 where the place is taken, 0 where the wait was too long.
local key, gap, burst, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call("time")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local due = math.max(tonumber(redis.call("get", key) or "0"), now)
local wait = math.max(0, due - now - (burst - 1) * gap)
if wait > longest then
    return { wait, 0 }
end
local after = due + gap
redis.call("set", key, string.format("%.0f", after), "PX", math.ceil((after - now) / 1000) + 1000)
return { wait, 1 }
