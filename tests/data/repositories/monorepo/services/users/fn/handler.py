def handle(event, context):
    return "users"
