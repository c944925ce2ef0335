-- Forget messages whose ends are written. ARGV: namespace, worker id, then queue, redis id, …
local namespace, worker = ARGV[1], ARGV[2]
for i = 3, #ARGV, 2 do
    local queue, id = ARGV[i], ARGV[i + 1]
    redis.call("srem", namespace .. ":__acks__." .. worker .. "." .. queue, id)
    redis.call("hdel", namespace .. ":" .. queue .. ".msgs", id)
end
return 1
