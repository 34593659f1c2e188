# ufw, with peers allowed to reach each other
# expect: direct
ufw --force enable
ufw allow 51820/udp
ufw logging low
ufw route allow in on $IF out on $IF
