-- Take ids from the first queues that have any, in the order given, into this worker's ack sets.
-- ARGV: namespace, worker id, then queue, most to take (of what is taken in all) … in order of service.
-- Returns queue, redis id, body (false where it is gone), … ; stock Dramatiq's keys, without its heartbeats.
local namespace, worker = ARGV[1], ARGV[2]
local answer, taken = {}, 0
for i = 3, #ARGV, 2 do
    local queue, room = ARGV[i], tonumber(ARGV[i + 1]) - taken
    local list = namespace .. ":" .. queue
    if room > 0 then
        local ids = redis.call("lpop", list, math.min(room, 1000))
        if ids then
            local acks = namespace .. ":__acks__." .. worker .. "." .. queue
            redis.call("sadd", acks, unpack(ids))
            local bodies = redis.call("hmget", list .. ".msgs", unpack(ids))
            for n, id in ipairs(ids) do
                answer[#answer + 1] = queue
                answer[#answer + 1] = id
                answer[#answer + 1] = bodies[n]
            end
            taken = taken + #ids
        end
    end
end
return answer
