# The Missing WireGuard Documentation, "to add iptables forwarding rules on bounce servers"
# expect: direct
$IPTABLES -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$IPTABLES -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$IPTABLES -A FORWARD -i $IF -o $IF -m conntrack --ctstate NEW -j ACCEPT
$IPTABLES -t nat -A POSTROUTING -s $NET -o eth0 -j MASQUERADE
