# Docker's tables, with a policy of DROP and an accept for the peers
# expect: direct
$IPTABLES -P FORWARD DROP
$IPTABLES -N DOCKER-USER
$IPTABLES -N DOCKER-FORWARD
$IPTABLES -N DOCKER
$IPTABLES -A FORWARD -j DOCKER-USER
$IPTABLES -A FORWARD -j DOCKER-FORWARD
$IPTABLES -A DOCKER-USER -i $IF -o $IF -j ACCEPT
$IPTABLES -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$IPTABLES -A DOCKER-FORWARD -o docker0 -j DOCKER
$IPTABLES -A DOCKER-FORWARD -i docker0 -j ACCEPT
$IPTABLES -A DOCKER -d $POD ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
$IPTABLES -A DOCKER ! -i docker0 -o docker0 -j DROP
$IPTABLES -t nat -N DOCKER
$IPTABLES -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
$IPTABLES -t nat -A POSTROUTING -s $PODS ! -o docker0 -j MASQUERADE
$IPTABLES -t nat -A POSTROUTING -s $POD -d $POD -p tcp -m tcp --dport 80 -j MASQUERADE
$IPTABLES -t nat -A DOCKER -i docker0 -j RETURN
$IPTABLES -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination $POD
$IPTABLES -t raw -A PREROUTING -d $POD ! -i docker0 -j DROP
