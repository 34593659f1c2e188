# Few pings
# expect: direct, but ping by the kernel
# says: limit
$IPTABLES -A FORWARD -p $ICMP -m $ICMP_MATCH echo-request -m limit --limit 1000/s -j ACCEPT
$IPTABLES -A FORWARD -i $IF -o $IF -j ACCEPT
