# What is not tracked is not INVALID
# expect: direct
$IPTABLES -t raw -A PREROUTING -i $IF -s $NET -d $NET -j CT --notrack
$IPTABLES -A FORWARD -m conntrack --ctstate INVALID -j DROP
$IPTABLES -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$IPTABLES -A FORWARD -i $IF -o $IF -m conntrack --ctstate NEW,UNTRACKED -j ACCEPT
$IPTABLES -P FORWARD DROP
