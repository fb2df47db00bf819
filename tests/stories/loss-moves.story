# A quarter of all frames is lost on the only link, and a person moves the service about all the same: what is lost is
# asked for and sent again.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 3
    initdead 6
    auto_failback off
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
lose 25% all
wait 3s
standby clustnode1 all
wait 3s
takeover clustnode1 all
wait 3s
standby clustnode1 all
wait 3s
takeover clustnode1 all
wait 3s
standby clustnode1 all
wait 3s
takeover clustnode1 all
wait 10s
lose 0% all
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> lose 25% all
> wait 3s
> standby clustnode1 all
answer: done
> wait 3s
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
> takeover clustnode1 all
answer: done
> wait 3s
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
> standby clustnode1 all
answer: done
> wait 3s
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
> takeover clustnode1 all
answer: done
> wait 3s
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
> standby clustnode1 all
answer: done
> wait 3s
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
> takeover clustnode1 all
answer: done
> wait 10s
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
> lose 0% all
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
