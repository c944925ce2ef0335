-- Put ids into their queues' windows and wake as many idle workers; a second push of an id does no harm.
-- A window is two lists: what is served in its order, and, before it, what came early (see fetch.lua).
-- ARGV: namespace, wake key pattern, window key, queue, redis id, body, place, then the next four …
-- place: "last" · "head" of all · "early" · "move" (early, and no longer where it was pushed a moment ago)
-- Returns queue, length of its lists, its window, … for each queue named.
local namespace, wake, window = ARGV[1], ARGV[2], ARGV[3]
local pushed, order = {}, {}
for i = 4, #ARGV, 4 do
    local queue, id, body, place = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local list = namespace .. ":" .. queue
    local there = place ~= "move" or redis.call("lrem", list, -1, id) == 1 -- else a worker has it already
    if there then
        redis.call("hset", list .. ".msgs", id, body)
        if place == "early" or place == "move" then
            redis.call("rpush", list .. ".early", id)
        else
            redis.call(place == "head" and "lpush" or "rpush", list, id)
        end
    end
    if not pushed[queue] then
        pushed[queue] = 0
        order[#order + 1] = queue
    end
    pushed[queue] = pushed[queue] + (there and 1 or 0)
end
local answer = {}
for _, queue in ipairs(order) do
    local key = string.gsub(wake, "{}", queue)
    for _ = 1, math.min(pushed[queue], 16) do
        redis.call("lpush", key, "1")
    end
    redis.call("ltrim", key, 0, 63)
    redis.call("expire", key, 60)
    local list = namespace .. ":" .. queue
    answer[#answer + 1] = queue
    answer[#answer + 1] = redis.call("llen", list) + redis.call("llen", list .. ".early")
    answer[#answer + 1] = tonumber(redis.call("hget", window, queue) or "0")
end
return answer
