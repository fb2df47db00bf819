# A null modem is the only link. It carries beats, a takeover and a return.
cluster
    nodes clustnode1 clustnode2
    keepalive 1
    deadtime 5
    initdead 10
    auto_failback on
    keys auth 2; 2 sha1 secret
    baud 19200
    link ttyS0 serial
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
power-off clustnode1
settle within 6s
power-on clustnode1
settle
standby clustnode1 all
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
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> standby clustnode1 all
answer: done
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
