# HUP while a group is on its way home: the new life waits until it runs there, and nothing is started twice.
cluster
    nodes clustnode1 clustnode2
    keepalive 200ms
    deadtime 2
    initdead 4
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
    script httpd stop 3s

start clustnode2
settle
start clustnode1
wait 1s
renew clustnode2 keepalive 100ms
renew clustnode1 keepalive 100ms
settle
wait 2s
stop clustnode1
settle
----
> start clustnode2
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
> start clustnode1
> wait 1s
> renew clustnode2 keepalive 100ms
> renew clustnode1 keepalive 100ms
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> wait 2s
> stop clustnode1
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
