package main

import (
	"net/http"

	"function/src/handler"
)

func main() {
	http.ListenAndServe(":8080", http.HandlerFunc(handler.Handle))
}
