# httpd does not stop when its node shall give it away. It is tried again and again, then a person is called. Until
# then the other node does not start it: better nobody answers than two.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
    script httpd on clustnode1 stop fails

start clustnode1 clustnode2
settle
standby clustnode1 all
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> standby clustnode1 all
answer: refused
clustnode1: stop httpd failed
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode1 critical: httpd
