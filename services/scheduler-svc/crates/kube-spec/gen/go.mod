module flotilla/kube-spec-gen

go 1.24
