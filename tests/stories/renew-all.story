# HUP on the node that holds everything: beside a peer that holds nothing, without a peer, and again when the peer comes
# back and gets its set.
cluster
    nodes clustnode1 clustnode2
    keepalive 200ms
    deadtime 2
    initdead 4
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
    group clustnode2 172.23.2.15 mysql

start clustnode1 clustnode2
settle
standby clustnode1 all
settle
renew clustnode2 keepalive 150ms
wait 3s
settle
renew clustnode1 auto_failback off
wait 3s
settle
power-off clustnode1
wait 4s
renew clustnode2 keepalive 100ms
wait 6s
start clustnode1
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: + 172.23.2.15
clustnode2: start mysql
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
> standby clustnode1 all
answer: done
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode2
client: 172.23.2.15 clustnode2
> renew clustnode2 keepalive 150ms
> wait 3s
owner: 172.23.2.14 clustnode2
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode2
client: 172.23.2.15 clustnode2
> renew clustnode1 auto_failback off
> wait 3s
owner: 172.23.2.14 clustnode2
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode2
client: 172.23.2.15 clustnode2
> power-off clustnode1
> wait 4s
> renew clustnode2 keepalive 100ms
> wait 6s
> start clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
