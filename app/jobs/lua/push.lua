-- Put ids into their queues' windows and wake as many idle workers; a second push of an id does no harm.
-- ARGV: namespace, wake key pattern, window key, queue, redis id, body, solo ("1" first in line), then the next four …
-- Returns queue, length of its list, its window, … for each queue named.
local namespace, wake, window = ARGV[1], ARGV[2], ARGV[3]
local pushed, order = {}, {}
for i = 4, #ARGV, 4 do
    local queue, id, body, first = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local list = namespace .. ":" .. queue
    redis.call("hset", list .. ".msgs", id, body)
    redis.call(first == "1" and "lpush" or "rpush", list, id)
    if not pushed[queue] then
        pushed[queue] = 0
        order[#order + 1] = queue
    end
    pushed[queue] = pushed[queue] + 1
end
local answer = {}
for _, queue in ipairs(order) do
    local key = string.gsub(wake, "{}", queue)
    for _ = 1, math.min(pushed[queue], 16) do
        redis.call("lpush", key, "1")
    end
    redis.call("ltrim", key, 0, 63)
    redis.call("expire", key, 60)
    answer[#answer + 1] = queue
    answer[#answer + 1] = redis.call("llen", namespace .. ":" .. queue)
    answer[#answer + 1] = tonumber(redis.call("hget", window, queue) or "0")
end
return answer
