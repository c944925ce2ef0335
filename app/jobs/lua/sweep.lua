-- What workers that are gone had fetched and not claimed goes back to the head of its queues; their sets end with it.
-- ARGV: namespace, number of queues, queues …, worker ids …  Returns how many went back.
local namespace, count = ARGV[1], tonumber(ARGV[2])
local back = 0
for w = 3 + count, #ARGV do
    for i = 3, 2 + count do
        local list = namespace .. ":" .. ARGV[i]
        local acks = namespace .. ":__acks__." .. ARGV[w] .. "." .. ARGV[i]
        for _, id in ipairs(redis.call("smembers", acks)) do
            if redis.call("hexists", list .. ".msgs", id) == 1 then
                redis.call("lpush", list, id)
                back = back + 1
            end
        end
        redis.call("del", acks)
    end
end
return back
