-- Store a site's robots.txt for all workers, and drop the ones that expire first beyond a number of sites.
-- ARGV: key, value, seconds, key of the index, largest number of sites. The index is a sorted set of keys by expiry.
local key, value, seconds, index, largest = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local time = redis.call("time")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call("set", key, value, "ex", seconds)
redis.call("zremrangebyscore", index, "-inf", now)
redis.call("zadd", index, now + seconds, key)
local surplus = redis.call("zcard", index) - largest
if surplus > 0 then
    for _, old in ipairs(redis.call("zrange", index, 0, surplus - 1)) do
        redis.call("del", old)
    end
    redis.call("zremrangebyrank", index, 0, surplus - 1)
end
redis.call("expire", index, 86400)
return surplus
