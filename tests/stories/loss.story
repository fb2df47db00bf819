# A fifth of all frames is lost on all links, for a minute. Nothing moves by itself; a move by hand works.
cluster
    nodes clustnode1 clustnode2
    keepalive 200ms
    deadtime 2
    initdead 4
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
lose 20% all
wait 60s
standby clustnode1 all
wait 5s
takeover clustnode1 all
wait 5s
lose 0% all
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> lose 20% all
> wait 60s
> standby clustnode1 all
answer: done
> wait 5s
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
> takeover clustnode1 all
answer: done
> wait 5s
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
> lose 0% all
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
