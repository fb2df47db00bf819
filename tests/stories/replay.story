# Somebody recorded an earlier life of the master and plays it when the master is dead: a dead node stays dead, for a
# peer that knew it and for a peer that was started again meanwhile.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
power-off clustnode1
wait 3s
power-on clustnode1
settle
power-off clustnode1
replay clustnode1 20s
settle within 1300ms
stop clustnode2
start clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode1
> wait 3s
clustnode2: + 172.23.2.14
clustnode2: start httpd
> power-on clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode1
> replay clustnode1 20s
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
> stop clustnode2
> start clustnode2
clustnode2: stop httpd
clustnode2: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
