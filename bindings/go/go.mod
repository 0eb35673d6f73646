module ssm/echo

go 1.19
