# kube-proxy's default
# expect: kernel
# says: may drop packets between peers
$IPTABLES -N KUBE-FORWARD
$IPTABLES -A FORWARD -j KUBE-FORWARD
$IPTABLES -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
$IPTABLES -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
$IPTABLES -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
