-- Which life of Redis is this? Whoever first sees a new one is told so, and empties the windows.
-- ARGV: epoch key, the server's run id.
if redis.call("get", ARGV[1]) == ARGV[2] then
    redis.call("expire", ARGV[1], 86400)
    return 0
end
redis.call("set", ARGV[1], ARGV[2], "EX", 86400)
return 1
