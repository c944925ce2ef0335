-- Take ids from the first queues that have any, in the order given, into this worker's ack sets.
-- ARGV: namespace, worker id, then queue, most to take (of what is taken in all) … in order of service.
-- Returns queue, redis id, body (false where it is gone), … ; stock Dramatiq's keys, without its heartbeats.
local namespace, worker = ARGV[1], ARGV[2]
local answer, taken = {}, 0

local function take(from, room, ids)
    if room > 0 then
        for _, id in ipairs(redis.call("lpop", from, math.min(room, 1000)) or {}) do
            ids[#ids + 1] = id
        end
    end
end

for i = 3, #ARGV, 2 do
    local queue, room = ARGV[i], tonumber(ARGV[i + 1]) - taken
    local list = namespace .. ":" .. queue
    if room > 0 then
        local ids, early = {}, list .. ".early"
        if redis.call("llen", early) > 0 then
            -- What came early goes first, but one place in eight, or of each batch, is the others': they must not
            -- wait for ever behind those who always come early.
            local turn = redis.call("incr", list .. ".turn") % 8
            if room == 1 and turn == 0 then
                take(list, 1, ids)
            end
            take(early, room == 1 and 1 - #ids or room - 1, ids)
        end
        take(list, room - #ids, ids)
        take(early, room - #ids, ids)
        if #ids > 0 then
            redis.call("sadd", namespace .. ":__acks__." .. worker .. "." .. queue, unpack(ids))
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
