# Who has said that it holds nothing needs no reset, even when the device fails: a spare node that
# gave everything away and dies.
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
standby clustnode2 all
settle
power-off clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> standby clustnode2 all
answer: done
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode2
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode1 info: Dead node clustnode2 gave up resources.
never error
