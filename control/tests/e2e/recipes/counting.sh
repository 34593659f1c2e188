# A rule that only counts
# expect: kernel
# says: counts packets between peers
$IPTABLES -A FORWARD -i $IF -j ACCEPT
$IPTABLES -I FORWARD -s $NET
