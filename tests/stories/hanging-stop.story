# httpd hangs when it is stopped, once; it is killed at its limit, and the second try works.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
    script httpd on clustnode1 stop hangs
    limit stop 1500ms

start clustnode1 clustnode2
settle
stop clustnode2
start clustnode2
wait 3s
script httpd on clustnode1 stop works
standby clustnode1 all
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> stop clustnode2
> start clustnode2
> wait 3s
> script httpd on clustnode1 stop works
> standby clustnode1 all
answer: done
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
