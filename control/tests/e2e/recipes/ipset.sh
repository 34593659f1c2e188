# A set of addresses of ipset(8), which is not read
# expect: kernel
# says: match set is not understood
ipset -exist create blocked_$$ hash:net family $VERSION
$IPTABLES -A FORWARD -m set --match-set blocked_$$ src -j DROP
