def handle(event, context):
    return {
        "statusCode": 200,
        "body": "Hello from OpenFaaS Cloud!\n",
        "headers": {"Content-Type": "text/plain"},
    }
