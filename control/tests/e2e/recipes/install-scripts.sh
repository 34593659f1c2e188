# What popular install scripts write: accepts, and SNAT for what leaves the network of the peers
# expect: direct
$IPTABLES -I INPUT -p udp --dport 51820 -j ACCEPT
$IPTABLES -I FORWARD -s $NET -j ACCEPT
$IPTABLES -I FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT
$IPTABLES -I FORWARD -i eth0 -o $IF -j ACCEPT
$IPTABLES -I FORWARD -i $IF -j ACCEPT
$IPTABLES -t nat -A POSTROUTING -s $NET ! -d $NET -j SNAT --to $OUTSIDE
