# Packets between peers are not tracked
# expect: direct
$IPTABLES -t raw -A PREROUTING -i $IF -s $NET -d $NET -j CT --notrack
$IPTABLES -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,UNTRACKED -j ACCEPT
$IPTABLES -A FORWARD -i $IF -j ACCEPT
