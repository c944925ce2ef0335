-- Put what lies in a worker's ack sets back to the head of its queues, but for what it says it knows.
-- Used by a worker whose fetch got no answer, and when it stops. ARGV: namespace, worker id,
-- number of queues, queues …, ids that are known …  Returns how many went back.
local namespace, worker, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local known = {}
for i = 4 + count, #ARGV do
    known[ARGV[i]] = true
end
local back = 0
for i = 4, 3 + count do
    local list = namespace .. ":" .. ARGV[i]
    local acks = namespace .. ":__acks__." .. worker .. "." .. ARGV[i]
    for _, id in ipairs(redis.call("smembers", acks)) do
        if not known[id] then
            redis.call("srem", acks, id)
            if redis.call("hexists", list .. ".msgs", id) == 1 then
                redis.call("lpush", list, id)
                back = back + 1
            end
        end
    end
end
return back
