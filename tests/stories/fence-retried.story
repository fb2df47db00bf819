# The device fails twice and then works: no takeover before, and the takeover then.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    stonith_host * null clustnode1 clustnode2
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd
    device fails

start clustnode1 clustnode2
settle
power-off clustnode1
wait 8s
device works
wait 10s
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode1
> wait 8s
> device works
> wait 10s
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
---- notes
clustnode2 warning: STONITH of clustnode1 failed.  Retrying...
clustnode2 warning: STONITH of clustnode1 failed.  Retrying...
clustnode2 info: node clustnode1 now reset.
clustnode2 warning: Resources being acquired from clustnode1.
