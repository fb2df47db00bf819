# httpd hangs when its node is to give it back, once: it is killed at its limit, and the second try works. Until then
# the preferred node waits.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
    script httpd on clustnode2 stop hangs
    limit stop 1s

start clustnode1 clustnode2
settle
power-off clustnode1
settle
power-on clustnode1
wait 1900ms
script httpd on clustnode2 stop works
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
> power-on clustnode1
> wait 1900ms
clustnode2: stop httpd killed
> script httpd on clustnode2 stop works
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
