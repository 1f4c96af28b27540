def handle(event, context):
    return "héllo"
