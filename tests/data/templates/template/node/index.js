const handler = require("./function/handler");

require("http").createServer((request, response) => response.end(handler(request))).listen(8080);
