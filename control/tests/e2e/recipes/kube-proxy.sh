# kube-proxy with nf_conntrack_tcp_be_liberal, which does not drop INVALID then
# expect: direct
$IPTABLES -N KUBE-FORWARD
$IPTABLES -A FORWARD -j KUBE-FORWARD
$IPTABLES -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
$IPTABLES -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$IPTABLES -t nat -N KUBE-SVC
$IPTABLES -t nat -N KUBE-POSTROUTING
$IPTABLES -t nat -A PREROUTING -d $SERVICE -p tcp -m tcp --dport 443 -j KUBE-SVC
$IPTABLES -t nat -A KUBE-SVC -j MARK --set-xmark 0x4000/0x4000
$IPTABLES -t nat -A KUBE-SVC -m statistic --mode random --probability 0.5 -j DNAT --to $POD
$IPTABLES -t nat -A KUBE-SVC -m recent --name one --set -j DNAT --to-destination $POD
$IPTABLES -t nat -A POSTROUTING -j KUBE-POSTROUTING
$IPTABLES -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
$IPTABLES -t nat -A KUBE-POSTROUTING -j MASQUERADE
