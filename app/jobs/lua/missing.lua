-- Which of these ids does Redis not hold, neither in the lists nor in the ack set of a live worker?
-- ARGV: namespace, queue, number of workers, workers …, redis ids …
local namespace, queue, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local there = {}
for _, list in ipairs({ "", ".early" }) do
    for _, id in ipairs(redis.call("lrange", namespace .. ":" .. queue .. list, 0, -1)) do
        there[id] = true
    end
end
for i = 4, 3 + count do
    for _, id in ipairs(redis.call("smembers", namespace .. ":__acks__." .. ARGV[i] .. "." .. queue)) do
        there[id] = true
    end
end
local missing = {}
for i = 4 + count, #ARGV do
    if not there[ARGV[i]] then
        missing[#missing + 1] = ARGV[i]
    end
end
return missing
