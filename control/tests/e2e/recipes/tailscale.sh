# Tailscale beside the hub
# expect: direct
$IPTABLES -N ts-forward
$IPTABLES -A FORWARD -j ts-forward
$IPTABLES -A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000
$IPTABLES -A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
$IPTABLES -A ts-forward -s $PODS -o tailscale0 -j DROP
$IPTABLES -A ts-forward -o tailscale0 -j ACCEPT
$IPTABLES -t nat -A POSTROUTING -m mark --mark 0x40000/0xff0000 -j MASQUERADE
